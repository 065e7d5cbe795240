"""Weights of SuperGlue and LightGlue filled at random, for their own are not here.

What a real network adds to a descriptor is drawn at random and made small, so that descriptors
decide and there are matches to compare. Nothing is told of how well these networks match.
"""

import importlib
import importlib.util
import sys
import types

import pytest
import torch


def superglue_state():
    """State dict of SuperGlue; skips where hloc or SuperGlue's code is not importable."""
    pytest.importorskip("hloc", reason="hloc is not importable; put it on PYTHONPATH")
    pytest.importorskip("hloc.matchers.superglue", reason="SuperGlue's code is not importable")
    code = importlib.import_module("SuperGluePretrainedNetwork.models.superglue")

    class Random(code.SuperGlue):
        def load_state_dict(self, state_dict, *_, **__):
            """Leave the weights as they were drawn."""

    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code.torch, "load", lambda path: {})
        net = Random({"weights": "outdoor"})
    with torch.no_grad():
        for last in [net.kenc.encoder[-1], *(layer.mlp[-1] for layer in net.gnn.layers)]:
            last.weight *= 0.01
        net.final_proj.weight.copy_(30 * torch.eye(256)[..., None])
    return net.state_dict()


def lightglue_state(dim):
    """State dict of LightGlue for descriptors of ``dim``, in the names of the published files."""
    kornia = pytest.importorskip("kornia.feature", reason="kornia is not installed")
    torch.manual_seed(0)
    net = kornia.LightGlue(None, input_dim=dim)
    with torch.no_grad():
        if dim != 256:
            net.input_proj.weight.copy_(torch.linalg.qr(torch.randn(256, dim))[0])
        for layer in net.transformers:
            for block in (layer.self_attn, layer.cross_attn):
                block.ffn[-1].weight *= 0.01
        for head in net.log_assignment:
            head.final_proj.weight.copy_(30 * torch.eye(256))
            head.matchability.weight.zero_()
            head.matchability.bias.fill_(10)
    return upstream_names(net.state_dict())


def upstream_names(state):
    """kornia's names as LightGlue publishes them."""
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "transformers":
            key = ".".join([parts[2], parts[1], *parts[3:]])
        renamed[key] = value
    return renamed


def import_lightglue(monkeypatch):
    """hloc's lightglue; skips where it is not importable."""
    if importlib.util.find_spec("torchvision") is None:
        # lightglue imports torchvision for its extractors, which are not used here.
        torchvision, models, resnet = (types.ModuleType(n) for n in ("t", "m", "r"))
        torchvision.models, models.resnet = models, resnet
        monkeypatch.setitem(sys.modules, "torchvision", torchvision)
        monkeypatch.setitem(sys.modules, "torchvision.models", models)
        monkeypatch.setitem(sys.modules, "torchvision.models.resnet", resnet)
    pytest.importorskip("lightglue", reason="hloc's lightglue is not importable")
