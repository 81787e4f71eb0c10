"""The dataset file and the multi-task replay buffers."""
