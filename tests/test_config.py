"""run.toml and sky.toml: everything wrong is said at once, with its key."""

import pickle
import tomllib
from pathlib import Path

import numpy as np
import pytest

import distsep
from distsep.config import ConfigError, RunConfig, read_config, read_sky
from distsep.config.arguments import patch_spec
from distsep.config.errors import collect
from distsep.config.run import ComponentTable, PatchTable
from distsep.config.tables import gather_parameters
from distsep.data.fits_out import write_maps
from distsep.data.store import save_observation

SKY = """
[sky]
nside = 4
[[component]]
kind = "CMB"
amplitude = { random = 50.0 }
[[component]]
kind = "Dust"
nu0 = 353.0
beta_d = 1.54
temp = 20.0
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a configuration in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "file.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def problems(read, path, overrides=()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(path, overrides)
    return caught.value.problems


def run_text(component: str = "", rest: str = "") -> str:
    """A run.toml whose only mistakes are its store, and those of the test."""
    cmb = '[[component]]\nkind = "CMB"\n'
    return f'[observation]\nstore = "none.zarr"\n{cmb}{component}{rest}'


def found(write, component: str = "", rest: str = "") -> list[str]:
    lines = problems(read_config, write(run_text(component, rest)))
    lines.remove("observation.store: there is no `none.zarr`")
    return lines


def test_all_mistakes_of_all_tables_are_listed_at_once(write):
    path = write(
        """
        [observation]
        store = "none.zarr"
        stoks = "QU"
        mask = "none.fits"
        [[component]]
        kind = "Dst"
        [[component]]
        kind = "Dust"
        nu0 = 353.0
        beta_d = { start = 15.4, bounds = [0, 3], prior = { mean = 1.5, std = 0.0 } }
        tmp = { fixed = 20.0 }
        [[component]]
        kind = "Dust"
        nu0 = "353"
        [[component]]
        name = "AME"
        expression = "(nu0/nu)**2 * exp(-log(nu/peak)**2 + log(nu0/peak)**2)"
        nu0 = 23.0
        peak = { start = 25.0, bounds = [60, 10], patches = { nside = 3 } }
        [[global]]
        kind = "monopol"
        [fit]
        solver = "adm"
        tolerance = -1
        max_steps = true
        [output]
        amplitude_unit = "uK_CNB"
        amplitude_covariance = ["dust"]
        [ouput]
        """
    )
    lines = problems(read_config, path)
    keys = {line.split(":")[0] for line in lines}
    assert keys == {
        "observation.store",
        "observation.stoks",
        "observation.mask",
        "component.Dst.kind",
        "component.1.beta_d.start",
        "component.1.beta_d.prior.std",
        "component.1.tmp",
        "component.2.nu0",
        "component.2.name",
        "component.AME.peak.bounds",
        "global.monopol.kind",
        "fit.solver",
        "fit.tolerance",
        "fit.max_steps",
        "output.amplitude_unit",
        "output.amplitude_covariance",
        "ouput",
    }
    text = "\n".join(lines)
    for name in ("stokes", "Dust", "temp", "monopole", "adam", "output"):
        assert f"did you mean `{name}`?" in text


@pytest.mark.parametrize(
    ("table", "spec"),
    [
        ("8", {"nside": 8}),
        ("{ kmeans = 3, seed = 5 }", {"kmeans": 3, "seed": 5}),
        ('{ stokes = ["I", "QU"] }', {"stokes": ["I", "QU"]}),
        (
            '{ nside = 2, stokes = ["I", "QU"] }',
            {"nside": 2, "stokes": ["I", "QU"]},
        ),
    ],
)
def test_patches_are_said_in_the_same_words_as_in_python(table, spec):
    read = PatchTable.model_validate(tomllib.loads(f"patches = {table}")["patches"])
    assert patch_spec(read, {"nside": 8, "coordsys": "G"}) == spec


def test_what_only_the_data_tell_is_listed_with_the_rest(write):
    """Of the store and the FITS files the headers are enough."""
    ins = distsep.Instrument([40.0, 100.0, 240.0, 350.0], depth_p=[1.0] * 4)
    sky = distsep.Observation(np.ones((4, 2, 192)), ins, stokes="QU", nside=4)
    save_observation(sky, "sky.zarr")
    for name, nside, frame in (("fine", 16, "G"), ("C", 4, "C")):
        ids, said = np.zeros((1, 12 * nside**2)), {"nside": nside, "coordsys": frame}
        write_maps(f"{name}.fits", ids, names=["ID"], units=[""], **said)
    nu = np.linspace(10, 200, 20)
    np.savetxt("spin.txt", np.column_stack([nu, np.exp(-(((nu - 30) / 50) ** 2))]))
    path = write(
        """
        [observation]
        store = "sky.zarr"
        mask = "C.fits"
        [[component]]
        kind = "CMB"
        [[component]]
        kind = "Dust"
        nu0 = 353.0
        beta_d = { start = 7.0, bounds = [1, 2], patches = { map = "fine.fits" } }
        temp = { prior = { mean = 20.0, std = 0.0 } }
        tmp = 3.0
        [[component]]
        kind = "TabulatedAME"
        nu0 = 30.0
        table = "spin.txt"
        [[component]]
        kind = "Dust"
        nu0 = 150.0
        beta_d = { patches = { map = "C.fits", field = 3 } }
        [[global]]
        kind = "template"
        file = "fine.fits"
        """
    )
    lines = problems(read_config, path)
    for key, words in {
        "observation.mask": "COORDSYS = 'C', but the maps are in 'G'",
        "component.1.beta_d.start": "7 is outside its bounds [1, 2]",
        "component.1.beta_d.patches.map": "fine.fits: nside 16, finer than the maps",
        "component.1.temp.prior.std": "should be greater than 0",
        "component.1.tmp": "unknown key; did you mean `temp`?",
        "component.TabulatedAME": "covers 10 .. 200 GHz; the band at 350 .. 350 GHz",
        "component.3.name": "two components are called `Dust`",
        "component.3.beta_d.patches.map": "C.fits",
        "global.template.file": "fine.fits: nside 16, finer than the maps",
    }.items():
        assert any(line.startswith(f"{key}: ") and words in line for line in lines), (
            key,
            "\n".join(lines),
        )


@pytest.mark.parametrize(
    ("component", "expected"),
    [
        ("nu0 = 1.0", "component.CMB.nu0: CMB has no reference frequency"),
        ('expression = "nu"', "component.CMB: give `kind` or `expression`, one of"),
        ('[[component]]\nkind = "Dust"', "component.Dust.nu0: is required"),
        ('[[component]]\nexpression = "nu"', "component.1.name: is required"),
        (
            '[[component]]\nname = "X"\nexpression = "nu.real"',
            "component.X.expression: ",
        ),
        (
            '[[component]]\nkind = "Dust"\nnu0 = 353\ntemp = { fixed = 2, start = 3 }',
            "component.Dust.temp.start: means nothing",
        ),
        (
            '[[component]]\nkind = "Dust"\nnu0 = 353\ntemp = { shared = "Dust.tmp" }',
            "component.Dust.temp.shared: no parameter `Dust.tmp`; did you mean `Dust.t",
        ),
        (
            '[[component]]\nkind = "Dust"\nnu0 = 353\ntemp = { shared = "Dust.temp" }',
            "component.Dust.temp.shared: a parameter cannot be shared with itself",
        ),
        (
            '[[component]]\nkind = "Dust"\nnu0 = 353\nbeta_d = { patches = 3 }',
            "component.Dust.beta_d.patches.nside: expected a power of two, got 3",
        ),
        (
            '[[component]]\nkind = "Dust"\nnu0 = 353\n'
            "beta_d = { patches = { nside = 4, kmeans = 3 } }",
            "component.Dust.beta_d.patches: give exactly one of",
        ),
        (
            '[[component]]\nkind = "Dust"\nnu0 = 353\n'
            'beta_d = { patches = { map = "no.fits" } }',
            "component.Dust.beta_d.patches.map: there is no file `no.fits`",
        ),
        ('[[component]]\nkind = "Dust"\nnu0 = 353e9', "component.Dust.nu0: "),
        (
            '[[component]]\nkind = "Dust"\nnu0 = 353\nbeta_d = "1.5"',
            "component.Dust.beta_d: expected a number or a table",
        ),
        (
            '[[component]]\nkind = "Dust"\nnu0 = 353\nbeta_d = { start = nan }',
            "component.Dust.beta_d.start: should be a finite number",
        ),
        (
            '[[component]]\nkind = "Dust"\nnu0 = 353\ntemp = -5.0',
            "component.Dust.temp: -5 is outside its bounds [1, 1000]",
        ),
        (
            '[[component]]\nkind = "Dust"\nnu0 = 353\ntemp = { fixed = -5 }',
            "component.Dust.temp.fixed: -5 is outside its bounds [1, 1000]",
        ),
        (
            '[[component]]\nname = "X"\nexpression = "(nu/nu0)**b"',
            "component.X.expression: ",
        ),
    ],
)
def test_mistake_in_a_component(write, component, expected):
    (line,) = found(write, component)
    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ('[[global]]\nkind = "template"', "global.template.file: is required"),
        (
            '[[global]]\nkind = "monopole"\ncommon = true',
            "global.monopole.common: means nothing for a monopole",
        ),
        (
            '[[global]]\nkind = "region"\nregions = 4\ncomponent = "Dust"',
            "global.region.component: no `Dust`; valid: CMB",
        ),
        ('[instrument]\npreset = "WMAP"', "instrument.preset: is known from the st"),
        ('[instrument]\nbandpass = ["a"]', "instrument.bandpass: is known from the st"),
        ('[instrument]\nresponse = "RJ"', "instrument.response: is known from the st"),
        ("[instrument]\ndepth_p = [1.0]", "instrument.depth_p: is known from the st"),
        ('[instrument]\nbands = ["a"]', "instrument.bands: is known from the store"),
        (
            "[instrument]\ncalibration = { bands = [40, 40], std = 0.01 }",
            "instrument.calibration.bands: names a band twice",
        ),
        (
            "[instrument]\nangle = { bands = [40, 50], std = [1, 2, 3] }",
            "instrument.angle.std: expected 1 or 2 values, got 3",
        ),
        (
            "[instrument]\nangle = { bands = [] }",
            "instrument.angle.bands: needs at least 1 items",
        ),
        ("[fit]\nmax_steps = 1.5", "fit.max_steps: should be a valid integer"),
    ],
)
def test_mistake_in_another_table(write, rest, expected):
    (line,) = found(write, rest=rest)
    assert line.startswith(expected)


def test_fits_input_needs_an_instrument_and_stokes(write):
    write("", "40.fits")
    path = write(
        '[observation]\nfits = ["40.fits", "50.fits"]\nunit = "uK"\n'
        '[[component]]\nkind = "CMB"'
    )
    keys = [line.split(":")[0] for line in problems(read_config, path)]
    assert keys == [
        "observation.stokes",
        "instrument",
        "observation.fits.1.file",
        "observation.unit",
    ]


def test_the_columns_of_fits_files_are_looked_at_first(write):
    write("")
    said = {"nside": 1, "coordsys": "G", "units": ["K_CMB"]}
    write_maps("40.fits", np.ones((1, 12)), names=["T"], **said)
    text = '''[observation]
        fits = ["40.fits"]
        stokes = "IQU"
        unit = "mK"
        [instrument]
        nu = [40.0]
        depth_i = [1.0, 2.0]
        [[component]]
        kind = "CMB"'''
    assert problems(read_config, write(text)) == [
        "instrument.depth_i: `nu` has 1 band, `depth_i` 2",
        "observation.unit: unknown unit 'mK'; did you mean `mK_CMB` or `mK_RJ`?",
        'observation.stokes: the files hold one column (T): `stokes = "I"`?',
    ]


def test_fits_input_is_accepted(write):
    for name in ("40.fits", "50.fits", "60.fits"):
        write("", name)
    path = write(
        """
        [observation]
        fits = ["40.fits", { file = "50.fits", unit = "MJy/sr" }, "60.fits"]
        stokes = "QU"
        [[component]]
        kind = "CMB"
        [[component]]
        kind = "Dust"
        nu0 = 353
        temp = 20
        beta_d = { start = 1.6, patches = 8, prior = { mean = 1.54, std = 0.1 } }
        [instrument]
        preset = "LiteBIRD"
        bands = [40, 50, "60"]
        calibration = { bands = [50], std = 0.01 }
        """
    )
    config = read_config(path, ["fit.tolerance=1e-4", "component.Dust.nu0=300"])
    assert config.component[1].nu0 == 300
    patches = config.component[1].parameters["beta_d"].patches
    assert patches is not None
    assert patches.nside == 8
    assert config.component[1].options == {"temp": 20}
    assert config.fit.tolerance == 1e-4
    assert config.instrument.bands == ["40", "50", "60"]
    assert config.observation.fits is not None
    assert config.observation.fits[1].unit == "MJy/sr"
    assert config.provenance["overrides"][1] == "component.Dust.nu0=300"
    assert config.provenance["configuration"] == path.read_text()


def test_arguments_of_separate(write):
    npix = 12 * 2**2
    ids = np.arange(npix) % 5
    said = {"units": [""], "nside": 2, "coordsys": "G", "ordering": "NEST"}
    write("", "40.fits")
    write_maps("ids.fits", ids[None], names=["ID"], **said)
    write_maps("leak.fits", np.ones((1, npix)), names=["I"], **said)
    path = write(
        """
        [observation]
        fits = ["40.fits", "40.fits", "40.fits"]
        stokes = "QU"
        [instrument]
        nu = [40, 100, 353]
        depth_p = [1, 1, 1]
        calibration = { bands = [40, 100], std = 0.01 }
        angle = { bands = [353], std = [0.02], start = 0.01 }
        [[component]]
        kind = "CMB"
        [[component]]
        name = "Cold"
        kind = "Dust"
        nu0 = 353
        beta_d = { start = 1.6, bounds = [1, 2], patches = { map = "ids.fits" } }
        temp = { shared = "Warm.temp" }
        [[component]]
        name = "Warm"
        kind = "Dust"
        nu0 = 353
        temp = { prior = { mean = 20, std = 3 } }
        beta_d = { fixed = 1.5 }
        [[global]]
        kind = "monopole"
        bands = [40]
        prior = [0, 2]
        [[global]]
        kind = "template"
        file = "leak.fits"
        common = true
        [[global]]
        kind = "region"
        component = "Warm"
        regions = 1
        [fit]
        solver = "newton"
        """
    )
    config = read_config(path)
    said = config.separate_arguments(nside=2, coordsys="G")
    assert [c.name for c in said.pop("components")] == ["CMB", "Cold", "Warm"]
    patches = said.pop("patches")["Cold.beta_d"]
    np.testing.assert_array_equal(patches["map"], ids)
    assert patches["ordering"] == "NEST"
    monopole, template, region = said.pop("global_terms")
    assert (monopole.bands, monopole.prior) == (["40"], (0, 2))
    np.testing.assert_array_equal(template.map, np.ones(npix))
    assert (template.common, template.ordering) == (True, "NEST")
    assert (region.component, region.regions) == ("Warm", {"nside": 1})
    assert said == {
        "start": {"Cold.beta_d": 1.6, "angle.353": 0.01},
        "fixed": {"Warm.beta_d": 1.5},
        "priors": {
            "Warm.temp": (20, 3),
            "calibration.40": (1, 0.01),
            "calibration.100": (1, 0.01),
            "angle.353": (0, 0.02),
        },
        "bounds": {"Cold.beta_d": (1, 2)},
        "shared": {"Warm.temp": ["Warm.temp", "Cold.temp"]},
        "calibration": ["40", "100"],
        "angle": ["353"],
        "amplitude_unit": "uK_CMB",
        "solver": "newton",
        "tolerance": 1e-3,
        "max_steps": 1000,
    }


def test_moments_become_components(write):
    text = run_text('[[component]]\nkind = "Dust"\nnu0 = 353\nmoments = 1\ntemp = 20\n')
    config = collect(RunConfig, gathered(text))[0]
    assert config is not None
    said = config.separate_arguments(nside=2, coordsys="G")
    names = [c.name for c in said["components"]]
    assert names == ["CMB", "Dust", "Dust_beta_d"]


def test_moments_take_a_value_and_no_more(write):
    law = """
        [[component]]
        kind = "Dust"
        nu0 = 353
        moments = 1
        temp = 20
        beta_d = { start = 1.5, prior = { mean = 1.5, std = 0.1 }, bounds = [1, 2] }
        """
    said = problems(read_config, write(run_text(law)))
    words = [line for line in said if "beta_d" in line and "only a value" in line]
    assert len(words) == 2, said


def gathered(text: str) -> dict:
    raw = tomllib.loads(text)
    gather_parameters(raw, ComponentTable)
    return raw


def test_more_components_than_bands(write):
    write("", "40.fits")
    text = """
        [observation]
        fits = ["40.fits"]
        stokes = "I"
        [instrument]
        nu = [40.0]
        depth_i = [1.0]
        [[component]]
        kind = "CMB"
        [[component]]
        kind = "Synchrotron"
        nu0 = 23
        """
    (line,) = problems(read_config, write(text))
    assert line.startswith("component: 2 components in 1 bands")


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("sky.nside", "expected section.key=value"),
        ("component.Dst.nu0=1", "there is no `Dst`; did you mean `Dust`?"),
        ("component.7.nu0=1", "there are 2 elements, numbered from 0"),
        ("sky.nside.x=1", "`sky.nside` is a value, not a table"),
    ],
)
def test_override_that_has_no_place(write, assignment, expected):
    (line,) = problems(read_sky, write(SKY), [assignment])
    assert expected in line


def test_overrides_are_checked_like_the_file(write):
    path = write(SKY)
    sky = read_sky(path, ["sky.nside=8", "sky.stokes=IQU", "component.1.beta_d=1.6"])
    assert (sky.sky.nside, sky.sky.stokes) == (8, "IQU")
    assert sky.component[1].options["beta_d"] == 1.6
    assert problems(read_sky, path, ["sky.nside=12", "sky.seeed=1"]) == [
        "sky.seeed: unknown key; did you mean `seed`?",
        "sky.nside: expected a power of two, got 12",
    ]


def test_sky_mistakes(write):
    path = write(
        SKY.replace("{ random = 50.0 }", '{ random = 1.0, file = "no.fits" }')
        + '[[component]]\nname = "X"\nexpression = "(nu/nu0)**a"\nnu0 = 1.0\n'
    )
    assert problems(read_sky, path) == [
        "component.CMB.amplitude: give exactly one of spectrum, power_law, file, "
        "random",
        "component.CMB.amplitude.file: there is no file `no.fits`",
        "component.X.a: is required: the sky needs its value",
        "component.X.amplitude: is required for this component",
    ]


def test_not_toml_and_no_file(write, tmp_path):
    path = write("[fit\n")
    assert "is not valid TOML" in problems(read_config, path)[0]
    assert problems(read_config, tmp_path / "none.toml") == ["there is no such file"]


def test_a_configuration_travels_between_ranks(write):
    sky = read_sky(write(SKY))
    copy = pickle.loads(pickle.dumps(sky))
    assert copy == sky
    assert copy.provenance == sky.provenance


@pytest.mark.parametrize(
    ("law", "also"),
    [
        ('kind = "Dust"', "nu0: is required"),
        ('name = "Dust"\nkind = "Dsut"', "kind: got 'Dsut'; did you mean `Dust`?"),
        ('kind = "Dust"\nnu0 = -1', "nu0: should be greater"),
        ('kind = "Dust"\nnu0 = 353\nunit = "uK"', "kind: "),
        ('name = "Dust"\nexpression = "(nu/nu0)**beta_d"\nunit = "uK"', "expression: "),
    ],
)
@pytest.mark.parametrize("value", ["1.5", "{ start = 1.5 }"])
def test_a_misspelt_parameter_is_told_with_the_rest(write, law, also, value):
    lines = found(write, f"[[component]]\n{law}\nbetad = {value}\n")
    assert sum(line.startswith(f"component.Dust.{also}") for line in lines) == 1
    assert [line for line in lines if "betad" in line] == [
        "component.Dust.betad: unknown key; did you mean `beta_d`?"
    ]


def test_a_table_that_is_not_there_is_a_mistake_among_the_others(write):
    law = '[[component]]\nkind = "TabulatedAME"\nnu0 = 30\ntable = "none.txt"\n'
    with pytest.raises(ConfigError) as caught:
        read_config(write(run_text(law) + "\n[fit]\nsolver = 'best'\n"))
    assert "TabulatedAME.table: a file of two columns: none.txt" in str(caught.value)
    assert "fit.solver" in str(caught.value)
