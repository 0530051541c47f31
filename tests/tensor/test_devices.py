"""The table of devices, and the product that stands in where it has no row."""

import pytest
import torch

from kitae.core.errors import KitaeError
from kitae.tensor.devices import DEVICES, device_named, device_of, devices_named, measured_peak, peak_flops


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-16GB", "V100-16GB"),
        ("Tesla V100-SXM2-32GB", "V100-32GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 5090", "RTX 5090"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA H100 80GB HBM3", "H100-SXM"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H100 NVL", "H100-NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA B200", "B200"),
    ],
)
def test_names_of_cuda_find_their_row(reported: str, name: str) -> None:
    found = device_of(reported)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    "reported", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "Quadro RTX 6000", "Tesla P100"]
)
def test_devices_that_only_look_alike_have_none(reported: str) -> None:
    assert device_of(reported) is None


def test_every_name_leads_to_its_own_row() -> None:
    for name, device in DEVICES.items():
        assert device_named(name) is device
        assert devices_named(f"{name}x8") == (device, 8)
        assert devices_named(name.lower().replace("-", " ")) == (device, 1)
        for short in device.also:
            assert device_named(short) is device


def test_half_precision_that_a_card_lacks_goes_at_the_speed_of_fp32() -> None:
    v100, h200 = device_named("V100"), device_named("H200")
    assert v100.flops("bf16") == v100.flops("fp32") == 15.7e12
    assert v100.flops("fp16") == 125e12
    assert h200.flops("bf16") == 989e12
    assert h200.memory == pytest.approx(150.1e9, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "words"),
    [("H20", 'no device "H20"'), ("A1000-80GB", 'did you mean "A100-80GB"'), ("H200x0", "1 or more"), ("TPU", "known are A10")],
)
def test_unknown_devices_are_refused(text: str, words: str) -> None:
    with pytest.raises(KitaeError, match=words):
        devices_named(text)


def test_a_cpu_is_measured() -> None:
    single = measured_peak(torch.device("cpu"), "fp32", seconds=0.05)
    double = measured_peak(torch.device("cpu"), "fp64", seconds=0.05)
    assert 1e8 < double < 1e14
    assert 1e8 < single < 1e14
    assert peak_flops(torch.device("cpu"), "fp32") > 1e8


def test_a_cpu_is_held_against_fp32_where_fp16_has_no_units() -> None:
    """fp16 itself would take 15 seconds, and give a fortieth."""
    single = measured_peak(torch.device("cpu"), "fp32", seconds=0.05)
    assert measured_peak(torch.device("cpu"), "fp16", seconds=0.05) > single / 5
