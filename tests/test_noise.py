"""Noise seeds: those of protocol 6 to the bit, and independent ones per prompt and stream from 7 on."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from motionlab.core.noise import noise_version, prompt_noise, prompt_seeds, stream_seeds
from motionlab.data.prompts import load_prompts
from motionlab.experiments import rows

PROMPTS = [5050000, 5050001, 5050002, 5050003]


def test_protocol_6_is_what_the_committed_rows_were_made_with():
    assert prompt_seeds(PROMPTS, 2, 6) == [p + 2 * 1000000007 for p in PROMPTS]
    assert stream_seeds(PROMPTS, 0, 6) == PROMPTS and stream_seeds(PROMPTS, 1, 6) == [p + 1 for p in PROMPTS]
    assert stream_seeds(PROMPTS, 1, 6)[0] == stream_seeds(PROMPTS, 0, 6)[1]          # the defect: two prompts share noise
    assert prompt_noise(prompt_seeds(PROMPTS[:1], 0, 6), (3,))[0].tolist() == torch.randn(3, generator=torch.Generator().manual_seed(5050000)).tolist()


def test_protocol_7_shares_nothing_between_prompts_runs_and_streams():
    seeds = [seed for run in range(3) for k in range(3) for seed in stream_seeds(prompt_seeds(range(5050000, 5050128), run, 7), k, 7)]
    assert len(set(seeds)) == len(seeds) and min(np.diff(sorted(seeds))) > 2 and 0 <= min(seeds) and max(seeds) < 2**63
    noise = prompt_noise([seed for k in range(2) for seed in stream_seeds(prompt_seeds(PROMPTS, 0, 7), k, 7)], (4000,)).flatten(1)
    correlation = np.corrcoef(noise.numpy()) - np.eye(len(noise))
    assert np.abs(correlation).max() < 5 / 4000**0.5


def test_protocol_7_is_settled():
    """Golden values: who changes the hash changes every row of the protocol."""
    assert prompt_seeds([5050000], 0, 7) == [GOLDEN[0]] and stream_seeds([GOLDEN[0]], 1, 7) == [GOLDEN[1]]
    assert stream_seeds([GOLDEN[0]], 0, 7) == [GOLDEN[0]]


@pytest.mark.parametrize("version", [6, 7])
def test_the_protocol_in_force_decides(version, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "reproductions").mkdir()
    (tmp_path / "reproductions/protocol.yaml").write_text(f"version: {version}\n")
    monkeypatch.setenv("MOTIONLAB_ROOT", str(tmp_path))
    assert noise_version() == version and prompt_seeds(PROMPTS, 1) == prompt_seeds(PROMPTS, 1, version)
    assert stream_seeds(PROMPTS, 1) == stream_seeds(PROMPTS, 1, version)


@pytest.mark.parametrize("version", [6, 7])
def test_rows_are_sampled_with_it(version, monkeypatch):
    """What reaches the method's sampler, of the protocol's own prompts."""
    monkeypatch.setattr("motionlab.core.noise.noise_version", lambda: version)
    prompts, given = load_prompts("dev", 3), []
    pipe = SimpleNamespace(decode=lambda z: z)
    method = SimpleNamespace(sample=lambda pipe, texts, seeds, options, **_: given.extend(seeds), video=lambda states: states, truth=lambda options: ())
    rows.sampled(SimpleNamespace(method=method, sampling=SimpleNamespace(mode="text")), pipe, prompts, 1)
    assert given == prompt_seeds([prompt.noise for prompt in prompts], 1, version)


GOLDEN = (7175036638138282092, 4370416316391600662)
