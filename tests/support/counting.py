"""Network calls of a compiled program, counted by a callback."""

import jax


def counted(process):
    """A process with the score of this one, and a list that grows by one with each evaluation.

    For one image: a batch runs until its slowest member is done. An evaluation with directional
    derivatives is one.
    """
    calls = []

    @jax.custom_jvp
    def count(x):
        return jax.pure_callback(lambda x: (calls.append(1), x)[1], x, x, vmap_method='sequential')

    count.defjvp(lambda primals, tangents: (count(*primals), tangents[0]))
    return process.with_score(lambda x, t: process.score(count(x), t)), calls
