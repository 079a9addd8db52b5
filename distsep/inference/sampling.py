"""Samples of the parameters, by NUTS on the reduced data.

What is sampled is the *profile* likelihood (amplitudes and their uncertainty at the
optimum for each beta) times the priors. It is no marginal over the amplitudes: that
depends on where nu0 is. Its width is that of H^-1, which at low signal to noise is too
small; `Result.sigma` (H^-1 F H^-1) is then the better one.
"""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distsep.inference.compiled import Whitened, whitened
from distsep.inference.newton import Local
from distsep.inference.objective import Objective

log = logging.getLogger("distsep")
# Of its draws, those at which a chain that is well has moved.
_LEAST_MOVED = 0.7
_LARGEST_R_HAT = 1.05
WHAT = "profile likelihood times priors"


@dataclass(frozen=True)
class Samples:
    """Samples of the profile likelihood times the priors.

    Attributes:
        names: The parameters.
        values: `(chain, draw, param)`.
        r_hat: Potential scale reduction of each parameter, 1 where chains agree.
        ess: Effective sample size of each parameter, of all chains together.
        divergent: Divergent steps, of all chains together.
        what: What was sampled, in words.
        warnings: What the user should hear of.
    """

    names: tuple[str, ...]
    values: np.ndarray
    r_hat: np.ndarray
    ess: np.ndarray
    divergent: int
    what: str = WHAT
    warnings: tuple[str, ...] = ()

    @property
    def mean(self) -> np.ndarray:
        """Mean of each parameter."""
        return self.values.mean((0, 1))

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of each parameter."""
        return self.values.std((0, 1))

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of the parameters."""
        flat = self.values.reshape(-1, len(self.names))
        return np.atleast_2d(np.cov(flat, rowvar=False))

    def __str__(self) -> str:
        """Return a table, and what was sampled."""
        width = max(map(len, self.names), default=0)
        lines = [f"{'':{width}}  {'mean':>12} {'std':>10} {'R-hat':>7} {'ESS':>7}"]
        columns = zip(
            self.names, self.mean, self.std, self.r_hat, self.ess, strict=True
        )
        lines += [
            f"{name:{width}}  {m:12.6g} {s:10.3g} {r:7.4f} {e:7.0f}"
            for name, m, s, r, e in columns
        ]
        chains, draws, _ = self.values.shape
        lines.append(
            f"{chains} chains of {draws} of the {self.what} (no marginal over the "
            f"amplitudes); {self.divergent} divergent"
        )
        return "\n".join([*lines, *(f"warning: {words}" for words in self.warnings)])


def sample(
    objective: Objective,
    local: Local,
    *,
    draws: Any = 1000,
    chains: Any = 4,
    seed: Any = 0,
    warmup: Any = 300,
) -> Samples:
    """Sample around an optimum, in coordinates where its Hessian is the unit matrix.

    Args:
        objective: On reduced data.
        local: Its quadratic model at the optimum; parameters held there stay.
        draws: Samples of each chain.
        chains: Chains, two or more, from starts spread one sigma about the optimum.
        seed: Of the random numbers.
        warmup: Steps that tune the step size and are thrown away.

    Raises:
        ImportError: blackjax is not there.
        ValueError: a number that is not whole; fewer than two draws or chains; no
            free parameter.

    Communication: none.

    References:
        Hoffman & Gelman (2014), JMLR 15, 1593; Cabezas et al. (2024), arXiv:2402.10797.
    """
    try:
        from blackjax import diagnostics
    except ImportError as error:
        raise ImportError(
            "`Result.sample` needs blackjax: pip install 'distsep[sampling]'."
        ) from error
    _check_numbers(draws=draws, chains=chains, warmup=warmup, seed=seed)
    if not objective.parameters.number:
        raise ValueError("`Result.sample`: every parameter is fixed; free one.")
    problem, shape = whitened(objective, local), objective.model.shape(False)
    statics = shape, objective.passes.template, draws, warmup, chains
    # blackjax mixes types and ranks.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found, divergent = _run(*statics, problem, jax.random.key(seed))
        r_hat = diagnostics.potential_scale_reduction(found)
        ess = diagnostics.effective_sample_size(found)
    values = np.asarray(found)
    if objective.gauge.shape[1]:  # nothing is known along these
        null = objective.gauge / np.linalg.norm(objective.gauge, axis=0)
        values = values - (values @ null) @ null.T
    names, r_hat = objective.parameters.names, np.where(local.held, np.nan, r_hat)
    warnings = (*_apart(names, r_hat), *_stuck(values))
    for words in warnings:
        log.warning(words)
    return Samples(
        names,
        values,
        r_hat,
        np.where(local.held, np.nan, np.asarray(ess)),
        int(divergent),
        warnings=warnings,
    )


def _check_numbers(**numbers: Any) -> None:
    """Refuse what is no whole number, or too small."""
    least = {"draws": 2, "chains": 2, "warmup": 1, "seed": 0}
    wrong = [
        f"{name}={value!r} should be a whole number, at least {least[name]}"
        + (" (R-hat compares chains)" if name == "chains" else "")
        for name, value in numbers.items()
        if isinstance(value, bool)
        or not isinstance(value, int | np.integer)
        or value < least[name]
    ]
    if wrong:
        raise ValueError(f"`Result.sample(...)`: {'; '.join(wrong)}.")


def _apart(names: tuple[str, ...], r_hat: np.ndarray) -> tuple[str, ...]:
    """Say where the chains do not agree."""
    pairs = zip(names, r_hat, strict=True)
    wrong = [f"{n} (R-hat {r:.3g})" for n, r in pairs if r > _LARGEST_R_HAT]
    if not wrong:
        return ()
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    return (
        f"the chains do not agree on {', '.join(wrong[:5])}{more}: take more `draws`.",
    )


def _stuck(values: np.ndarray) -> tuple[str, ...]:
    """Say that a chain hardly moved: more draws would not help it."""
    moved = (np.diff(values, axis=1) != 0).any(-1).mean(1).min()
    if moved > _LEAST_MOVED:
        return ()
    return (
        f"a chain stayed where it was in {100 * (1 - moved):.0f}% of its draws: the "
        "posterior is steeper in some places than its steps are short, as where "
        "parameters are hardly constrained. Give priors, use larger patches, or "
        "another `seed`.",
    )


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _run(shape, template, draws, warmup, chains, problem: Whitened, key):
    """All chains: parameters `(chain, draw, param)`, and the divergent steps."""
    import blackjax

    label, place, free = problem.label, problem.place, problem.free
    at_optimum, _ = problem.value_gradient(shape, template, problem.x0)

    def parameters(z):
        blocks = jnp.zeros(problem.W.shape[:2]).at[label, place].set(z)
        return problem.parameters(blocks)

    def evaluate(z):
        x = parameters(z)
        value, g = problem.value_gradient(shape, template, x)
        inside = ((x >= problem.lower) & (x <= problem.upper)).all()
        # A parameter held at a bound does not move: its coordinate gets a density.
        held = jnp.where(free, 0.0, z)
        value = value - at_optimum + 0.5 * (held**2).sum()
        g = problem.whiten(g)[label, place] + held
        ok = inside & jnp.isfinite(value)
        return jnp.where(ok, -value, -jnp.inf), jnp.where(ok, -g, 0.0)

    @jax.custom_vjp
    def log_density(z):
        return evaluate(z)[0]

    # The amplitudes are at their optimum: the gradient needs no derivative of a solve.
    log_density.defvjp(evaluate, lambda g, upstream: (upstream * g,))

    def chain(key):
        first, tune, run = jax.random.split(key, 3)
        start = jax.random.normal(first, problem.x0.shape)
        start = jnp.where(jnp.isfinite(log_density(start)), start, 0.0)
        tuning = blackjax.window_adaptation(blackjax.nuts, log_density)
        (state, tuned), _ = tuning.run(tune, start, num_steps=warmup)
        kernel = blackjax.nuts(log_density, **tuned)

        def step(state: Any, key):
            info: Any
            state, info = kernel.step(key, state)
            return state, (parameters(state.position), info.is_divergent)

        _, found = jax.lax.scan(step, state, jax.random.split(run, draws))
        return found

    values, divergent = jax.vmap(chain)(jax.random.split(key, chains))
    return values, divergent.sum()
