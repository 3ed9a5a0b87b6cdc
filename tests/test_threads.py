"""How a process is set up to compute."""

import pytest
import torch

from longscale.threads import EXACT, use_onednn


@pytest.fixture
def precision():
    """As it was afterwards."""
    before = torch.get_float32_matmul_precision()
    yield before
    torch.set_float32_matmul_precision(before)


def error_of_a_product():
    a, b = torch.randn(2, 300, 300, generator=torch.Generator().manual_seed(5))
    exact = a.double() @ b.double()
    return float(((a @ b).double() - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("vendor", ["AuthenticAMD", "GenuineIntel", None])
def test_products_stay_exact_whoever_computes_them(tmp_path, precision, vendor):
    """Also where this machine would take bfloat16 for what an AMD processor computes in float32."""
    if vendor:
        (tmp_path / "cpuinfo").write_text(f"vendor_id : {vendor}\n")
    handed_over = use_onednn(tmp_path / "cpuinfo")
    assert error_of_a_product() < EXACT
    chosen = torch.get_float32_matmul_precision()
    assert chosen == ("medium" if handed_over else precision)
    if vendor != "AuthenticAMD":
        assert not handed_over
