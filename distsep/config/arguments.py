"""From run.toml to the arguments of `separate`: the same words, said in Python."""

from typing import TYPE_CHECKING, Any

from distsep.config.model import build_law, expand
from distsep.config.tables import SYSTEMATICS
from distsep.data.fits_scalar import read_patches, read_stokes
from distsep.model.components import Component
from distsep.model.terms import Dipole, Monopole, Regional, Template

if TYPE_CHECKING:
    from distsep.config.run import PatchTable, RunConfig


def separate_arguments(
    config: "RunConfig", *, nside: int, coordsys: str
) -> dict[str, Any]:
    """Everything `separate` needs beside the observation and the ranks.

    Args:
        config: What `read_config` returned.
        nside: Resolution of the maps.
        coordsys: Coordinates of the maps; those of patch maps must agree.

    Returns:
        Keyword arguments of `separate`; those that say nothing are left out.

    Communication: none.
    """
    sphere = {"nside": nside, "coordsys": coordsys}
    found: dict[str, Any] = {
        key: {} for key in ("patches", "start", "fixed", "priors", "bounds", "shared")
    }
    components: list[Component] = []
    for table in config.component:
        law, _ = build_law(table)
        assert law is not None, "read_config has built it before"
        components += expand(table, law)
        for own, parameter in table.parameters.items():
            name = f"{law.name}.{own}"
            if "moments" in table.options:
                continue  # these values are where the law was expanded
            if parameter.shared is not None:
                members = found["shared"].setdefault(parameter.shared, [])
                members += [m for m in (parameter.shared, name) if m not in members]
            for key in ("start", "fixed", "bounds"):
                value = getattr(parameter, key)
                if value is not None:
                    found[key][name] = tuple(value) if key == "bounds" else value
            if parameter.prior is not None:
                found["priors"][name] = (parameter.prior.mean, parameter.prior.std)
            if parameter.patches is not None:
                found["patches"][name] = patch_spec(parameter.patches, sphere)
    found |= _systematics(config, found)
    found["global_terms"] = global_terms(config, sphere)
    output = config.output
    found["amplitude_covariance"] = tuple(output.amplitude_covariance)
    found["residuals"] = output.residuals
    return {
        "components": tuple(components),
        "amplitude_unit": output.amplitude_unit,
        **{key: value for key, value in found.items() if value},
        "solver": config.fit.solver,
        "tolerance": config.fit.tolerance,
        "max_steps": config.fit.max_steps,
    }


def patch_spec(table: "PatchTable", sphere: dict[str, Any]) -> dict[str, Any]:
    """Patches as `read_patches` reads them."""
    said: dict[str, Any] = {}
    if table.nside is not None:
        said = {"nside": table.nside}
    elif table.kmeans is not None:
        said = {"kmeans": table.kmeans, "seed": table.seed}
    elif table.map is not None:
        ids = read_patches(table.map, table.field, **sphere)
        said = {"map": ids, "ordering": "NEST"}
    return said if table.stokes is None else {**said, "stokes": table.stokes}


def _systematics(config: "RunConfig", found: dict[str, Any]) -> dict[str, Any]:
    """The instrumental parameters; their starts and priors go with the others."""
    bands = {}
    for kind, perfect in SYSTEMATICS.items():
        table = getattr(config.instrument, kind)
        if table is None:
            continue
        bands[kind] = list(table.bands)
        for n, band in enumerate(table.bands):
            if table.std is not None:
                std = table.std[n % len(table.std)]
                found["priors"][f"{kind}.{band}"] = (perfect, std)
            if table.start is not None:
                found["start"][f"{kind}.{band}"] = table.start
    return bands


def global_terms(config: "RunConfig", sphere: dict[str, Any]) -> list[Any]:
    """The global terms of [[global]]."""
    found: list[Any] = []
    for table in config.global_:
        prior = table.prior and (table.prior.mean, table.prior.std)
        if table.kind == "region":
            where = table.regions and patch_spec(table.regions, sphere)
            found.append(Regional(str(table.component), where, prior))
            continue
        said: dict[str, Any] = {"bands": table.bands, "stokes": table.stokes}
        if table.name is not None:
            said["name"] = table.name
        if table.kind == "template":
            columns = table.columns or [0]
            letters = {2: "QU", 3: "IQU"}.get(len(columns), table.stokes or "")
            alone = len(letters) > len(columns)  # one map for several of them
            maps = read_stokes(
                str(table.file), columns, "" if alone else letters, **sphere
            )
            said["map"] = maps[0] if len(columns) == 1 else maps
            said |= {"common": table.common, "ordering": "NEST"}
        make = {"monopole": Monopole, "dipole": Dipole, "template": Template}
        found.append(make[table.kind](**said, prior=prior))
    return found
