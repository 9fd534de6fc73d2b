"""The translation of every operation of torch that has one."""

from __future__ import annotations

from udlbridge.conversion.graphs import (
    activations,
    axes,
    constants,
    elementwise,
    images,
    layers,
    movement,
    orders,
    places,
    precise,
    recurrent,
    reductions,
    rounding,
    sampling,
    writing,
)

TRANSLATIONS = {
    **elementwise.TRANSLATIONS,
    **precise.TRANSLATIONS,
    **activations.TRANSLATIONS,
    **reductions.TRANSLATIONS,
    **axes.TRANSLATIONS,
    **movement.TRANSLATIONS,
    **places.TRANSLATIONS,
    **orders.TRANSLATIONS,
    **writing.TRANSLATIONS,
    **rounding.TRANSLATIONS,
    **constants.TRANSLATIONS,
    **layers.TRANSLATIONS,
    **images.TRANSLATIONS,
    **sampling.TRANSLATIONS,
    **recurrent.TRANSLATIONS,
}
"""By torch's name."""
