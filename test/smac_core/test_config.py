import pytest
import yaml

from smac_core.config import ConfigError, domains, load_config, override_config, parse_config


def test_every_domain_loads_at_every_scale():
    assert "sawyer" in domains()
    for domain in domains():
        for scale in ("smoke", "cpu", "paper"):
            assert load_config(domain, scale).scale == scale


def test_paper_scale_is_tables_1_and_2():
    config = load_config("sawyer", "paper")
    updates, networks = config.updates, config.networks
    assert (updates.rl_batch, updates.context_batch, updates.meta_batch) == (256, 64, 4)
    assert networks.policy_hidden == networks.critic_hidden == [300, 300, 300]
    assert networks.encoder_hidden == [200, 200, 200]
    assert networks.decoder_hidden == [64, 64]
    assert networks.latent_dim == 5
    assert (updates.discount, updates.target_rate, updates.learning_rate) == (0.99, 0.005, 3e-4)
    assert config.self_supervised.gradient_steps_per_transition == 4
    assert config.environment.horizon == 50
    assert updates.awac_temperature == 0.3 and updates.reward_scale == 1
    assert config.self_supervised.lambda_pearl == 0
    assert config.collection.trajectories * config.collection.length == 3750
    assert config.offline.steps == 50000


def test_unknown_key_is_refused_with_a_suggestion(domain, tmp_path):
    tree = yaml.safe_load(domain.read_text())
    tree["updates"]["learning_rat"] = 1.0
    path = tmp_path / "typo.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError) as error:
        load_config(str(path), "paper")
    message = str(error.value)
    assert "typo.yaml" in message
    assert "updates.learning_rat" in message
    assert "did you mean 'learning_rate'" in message


@pytest.mark.parametrize(
    ("domain_name", "scale", "override", "message"),
    [
        ("sawer", "cpu", None, "did you mean 'sawyer'"),
        ("sawyer", "papr", None, "did you mean 'paper'"),
        ("missing.yaml", "cpu", None, "missing.yaml: no such file"),
        ("sawyer", "cpu", "updates.meta_batch", "expected section.key=value"),
        ("sawyer", "cpu", "updates.meta_batch=0", "updates.meta_batch: .* greater than 0, found 0"),
        ("sawyer", "cpu", "updates.meta_batch=four", "found 'four'"),
        ("sawyer", "cpu", "updtes.meta_batch=4", "did you mean 'updates'"),
        ("sawyer", "cpu", "updates.awac_weighting=soft", "'softmax' or 'exponential'"),
        ("sawyer", "cpu", "updates.meta_batch=[", "not YAML"),
        ("sawyer", "cpu", "self_supervised.online_capacity=9", "online_capacity 9 holds no traj"),
    ],
)
def test_bad_configuration_is_named(domain_name, scale, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(domain_name, scale, [override] if override else [])


def test_broken_files_are_named(tmp_path):
    for text, message in (("a: [", "not YAML"), ("- 1", "expected a mapping"), ("", "NoneType")):
        path = tmp_path / "broken.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError, match=f"broken.yaml.*{message}"):
            load_config(str(path), "cpu")


def test_overrides_and_round_trip():
    config = load_config("sawyer", "cpu", ["updates.kl_weight=0.5"])
    assert config.updates.kl_weight == 0.5
    assert override_config(config, ["offline.steps=7"]).offline.steps == 7
    assert config.offline.steps != 7
    assert parse_config(config.model_dump(mode="json"), "test") == config
