"""The control path, walked for nobody: what has just run runs several times faster.

A processor that has slept for ten milliseconds has forgotten code and data (``smac bench
policy_latency --wake 0``). So while the next observation is due, an understudy acts on the last
one, from its bytes to a command's, with a state, random numbers and messages of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smac_ros.contract import Contract
from smac_ros.messages import Begin
from smac_ros.policy import Policy
from smac_ros.policy_episode import PolicyEpisode
from smac_ros.serialized import Packer, Unpacker
from smac_ros.weights import Weights

BEGIN = Begin(
    session=0, id=0, start=0, steps=1, purpose="exploration", mode="explore", group=0, seed=0
)


class Rehearsal:
    """An understudy of the policy.

    Attributes:
        steps: commands that went nowhere.
    """

    def __init__(self, contract: Contract, classes: Mapping[str, Callable[[], Any]]):
        self._contract, self._classes = contract, classes
        self._unpackers = [Unpacker(s.type, s.paths) for s in contract.observations]
        self._seen: list[bytes | None] = [None] * len(contract.observations)
        self._policy: Policy | None = None
        self._weights: Weights | None = None
        self._time = 0  # the understudy's, ns

    @property
    def steps(self) -> int:
        return self._policy.episode.steps if self._policy else 0

    def saw(self, index: int, data: bytes) -> None:
        """A message of stream ``index`` that could be read."""
        self._seen[index] = data

    def knows(self, weights: Weights | None) -> bool:
        """Whether ``run`` has these weights already: taking new ones lasts longer than acting."""
        return weights is self._weights

    def run(self, weights: Weights | None) -> None:
        """Act on what was seen last, with the policy's weights."""
        if weights is None:
            return
        if weights is not self._weights:
            self._cast(weights)
            return
        if self._policy.stopped:  # by numbers that stopped the real one, which began anew since
            self._policy.begin(PolicyEpisode(BEGIN, endless=True))
        self._time += self._contract.period_ns
        for index, data in enumerate(self._seen):
            if data is not None:
                message = self._unpackers[index].unpack(data)
                self._policy.observe(index, self._time, message)
        self._policy.on_period()

    def _cast(self, weights: Weights) -> None:
        self._weights = weights
        self._policy = Policy(
            self._contract,
            lockstep=False,
            commands=_Nobody(self._contract),
            classes=self._classes,
            receiver=_Present(weights),
            diagnostics=_Silence(),
            announce=lambda end: None,
            show=lambda posterior: None,
            now=lambda: self._time,
        )
        self._policy.begin(PolicyEpisode(BEGIN, endless=True))


class _Nobody:
    """In the place of ``CommandTopics``: commands become bytes, and no more."""

    open, state, foreign, unheard = True, "", "", ""

    def __init__(self, contract: Contract) -> None:
        self._packs = [Packer(command.type, command.paths).pack for command in contract.actions]

    def publish(self, messages: Sequence[Any | None]) -> None:
        for pack, message in zip(self._packs, messages, strict=True):
            if message is not None:
                pack(message)


class _Present:
    """In the place of a ``WeightsReceiver``: nothing newer comes."""

    waiting = False

    def __init__(self, weights: Weights) -> None:
        self.present = weights


class _Silence:
    """In the place of the node's diagnostics."""

    faults: Mapping[str, str] = {}

    def count(self, what: str, message: str = "", by: int = 1) -> None: ...

    def fault(self, what: str, message: str) -> None: ...

    def clear(self, what: str) -> None: ...
