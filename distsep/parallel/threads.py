"""Threads of the host's linear algebra. The only door to threadpoolctl."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

P = ParamSpec("P")
R = TypeVar("R")


def one_blas_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function: numpy's and scipy's linear algebra runs on one thread in it.

    The last bits of a product of matrices depend on the number of threads, and that
    on how many cores a rank was given. JAX's own threads are not touched.

    Communication: none.
    """

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with threadpool_limits(1, user_api="blas"):
            return function(*args, **kwargs)

    return limited
