"""fgbuster's recipes: its numbers, in its layout."""

from types import SimpleNamespace

import jaxtyping
import numpy as np
import pytest
from conftest import shared_file

import distsep
from distsep.fgbuster import basic_comp_sep, weighted_comp_sep

UNSEEN = -1.6375e30


class Golden:
    """One file of fgbuster's answers."""

    def __init__(self, name: str):
        self.values = np.load(shared_file("golden", f"{name}.npz"))
        self.instrument = SimpleNamespace(
            frequency=self["in__frequency"],
            depth_i=self["in__depth_i"],
            depth_p=self["in__depth_p"],
        )

    def __getitem__(self, key: str) -> np.ndarray:
        return self.values[key]

    def maps(self, kind: str, stokes: slice, masked: bool = False) -> np.ndarray:
        maps = self[f"in__{kind}"][:, stokes].copy()
        if masked:
            maps[..., self["in__mask_bad"]] = UNSEEN
        return maps


def components():
    return [
        distsep.CMB(),
        distsep.Dust(150.0, temp=20.0),
        distsep.Synchrotron(20.0),
    ]


START = {"Dust.beta_d": 1.6, "Synchrotron.beta_pl": -2.9}


def check(found, golden, case, tolerance=1e-3):
    """Parameters, amplitudes and chi of a case, in units of their errors."""
    x = golden[f"{case}__x"]
    name = f"{case}__x_newton"
    if name in golden.values.files:
        x = golden[name]
    fisher = golden[f"{case}__Sigma"]
    seen = x[0] > -1e30
    sigma = np.sqrt(np.abs([fisher[k, k] for k in range(len(x))]))
    assert found.params == list(golden[f"{case}__params"])
    assert found.x.shape == x.shape
    np.testing.assert_array_equal(found.x[0] > -1e30, seen)
    off = np.abs(found.x - x)[..., seen] / sigma[..., seen]
    assert off.max() < tolerance
    assert found.success
    good = golden[f"{case}__mask_good"]
    np.testing.assert_array_equal(found.mask_good, good)
    s = golden[f"{case}__s"]
    assert found.s.shape == s.shape
    # 1e-4 of the error of each amplitude asks more of x than fgbuster has.
    off = np.abs(found.s[..., good] - s[..., good])
    assert off.max() < 1e-3 * np.std(s[..., good])
    assert (found.s[..., ~good] < -1e30).all()
    chi2 = np.sum(found.chi[..., good] ** 2)
    assert chi2 == pytest.approx(golden[f"{case}__chi2"][..., good].sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("case", "kind", "stokes", "masked"),
    [
        ("basic_IQU", "basic", slice(0, 3), False),
        ("basic_QU_mask", "basic", slice(1, 3), True),
        ("weighted_QU_mask", "weighted", slice(1, 3), True),
        ("weighted_IQU", "weighted", slice(0, 3), False),
    ],
)
def test_one_value_each(case, kind, stokes, masked):
    golden = Golden("recipes_n16_const")
    said = (components(), golden.instrument)
    if kind == "basic":
        found = basic_comp_sep(
            *said, golden.maps("data_hom", stokes, masked), start=START
        )
    else:
        found = weighted_comp_sep(
            *said,
            golden.maps("data_inh", stokes, masked),
            golden.maps("cov", stokes, masked),
            start=START,
        )
    check(found, golden, case)
    np.testing.assert_allclose(
        found.result.fisher_inverse, golden[f"{case}__Sigma"], rtol=1e-3
    )
    assert found.Sigma.shape == golden[f"{case}__Sigma"].shape


def test_intensity_without_a_stokes_axis():
    golden = Golden("recipes_n16_const")
    maps = golden.maps("data_hom", slice(0, 1))[:, 0]
    found = basic_comp_sep(components(), golden.instrument, maps, start=START)
    check(found, golden, "basic_I")
    assert found.chi.shape == maps.shape


def test_patches_are_in_ring_order():
    golden = Golden("recipes_n16_vary4")
    found = weighted_comp_sep(
        components(),
        golden.instrument,
        golden.maps("data_inh", slice(1, 3), masked=True),
        golden.maps("cov", slice(1, 3), masked=True),
        nside=4,
        start=START,
    )
    check(found, golden, "weighted_QU_mask_fit4", tolerance=5e-3)
    shape = golden["weighted_QU_mask_fit4__Sigma"].shape
    assert found.Sigma.shape == shape
    seen = found.x[0] > -1e30
    both = found.Sigma[:, :, seen]
    np.testing.assert_allclose(both, np.swapaxes(both, 0, 1), rtol=1e-9)


def test_patches_and_a_mask():
    """Pixels that are not used have no residual; the others are as with NaN there."""
    golden = Golden("recipes_n16_vary4")
    maps = np.array(golden.maps("data_inh", slice(1, 3)))
    use = np.arange(maps.shape[-1]) % 7 > 0
    options = {"nside": 4, "start": START}
    said = (components(), golden.instrument)
    found = basic_comp_sep(*said, maps, observed=use, **options)
    maps[..., ~use] = np.nan
    wanted = basic_comp_sep(*said, maps, **options)
    np.testing.assert_array_equal(found.x, wanted.x)
    np.testing.assert_array_equal(found.chi, wanted.chi)


def test_one_nside_for_each_parameter():
    golden = Golden("recipes_n16_vary4")
    found = basic_comp_sep(
        components(),
        golden.instrument,
        golden.maps("data_hom", slice(1, 3)),
        nside=[4, 2],
        start=START,
        tol=1e-8,
    )
    dust, synchrotron = found.x
    assert (dust.shape, synchrotron.shape) == ((192,), (48,))
    sigma = found.result.sigma
    for name, values, key in (
        ("Dust.beta_d", dust, "x0"),
        ("Synchrotron.beta_pl", synchrotron, "x1"),
    ):
        # fgbuster's joint fits stop short of the optimum.
        off = np.abs(values - golden[f"multires_QU_fit4_2__{key}"])
        assert np.median(off / np.median(sigma[name])) < 0.05


def test_bounds_as_in_scipy():
    golden = Golden("recipes_n16_const")
    found = basic_comp_sep(
        components(),
        golden.instrument,
        golden.maps("data_hom", slice(1, 3), masked=True),
        bounds=[(1.6, None), (-3.5, -2.5)],
        start=START,
    )
    assert found.x[0] == pytest.approx(1.6)


@pytest.mark.parametrize("name", ["global_terms", "amplitude_unit", "patches"])
def test_what_the_layout_has_no_place_for_is_refused(name):
    """Its residuals would lack a part of the model, or mix units."""
    golden = Golden("recipes_n16_const")
    maps = golden.maps("data_hom", slice(1, 3), masked=True)
    with pytest.raises(ValueError, match=f"`{name}`: .*Call `distsep.separate`"):
        basic_comp_sep(components(), golden.instrument, maps, **{name: "K_CMB"})


def test_wrong_shapes_are_refused():
    instrument = distsep.instrument("LiteBIRD")
    with pytest.raises(ValueError, match="`data` should have shape"):
        basic_comp_sep(components(), instrument, np.ones((15, 4, 12)))
    with pytest.raises(ValueError, match="`nside` should be one number"):
        basic_comp_sep(components(), instrument, np.ones((15, 2, 12)), nside=[1])


def test_variances_and_bounds_of_another_shape_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users do
    instrument = distsep.Instrument(nu=[40.0, 90.0, 150.0, 350.0])
    laws = [distsep.CMB(), distsep.Dust(150.0, temp=20.0)]
    d, cov = np.ones((4, 2, 48)), np.ones((4, 48, 2))
    for wrong in cov, cov[:, 0], np.ones((4, 2, 1)):
        with pytest.raises(ValueError, match="`cov` should have the shape of `data`"):
            weighted_comp_sep(laws, instrument, d, wrong)
    for bounds in [(1, 3), (1, 3)], (1, 3), [(1, 2, 3)]:
        with pytest.raises(ValueError, match="`bounds` should be .* Dust.beta_d"):
            weighted_comp_sep(laws, instrument, d, d, bounds=bounds)
