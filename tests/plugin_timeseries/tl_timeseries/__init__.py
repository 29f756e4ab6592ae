"""A fourth modality: one-dimensional series in .npy files. Packaged as any stranger's plugin would be."""

from __future__ import annotations

from tl_core import PRESETS, BackboneSpec, HeadSpec, Loader, hookimpl, linear_heads


@hookimpl
def tl_loaders() -> list[Loader]:
    from tl_timeseries.loader import SeriesLoader

    return [SeriesLoader()]


@hookimpl
def tl_backbones() -> list[BackboneSpec]:
    from tl_timeseries.backbone import build

    return [
        BackboneSpec(
            name="gaussian-derivatives",
            modality="timeseries",
            source="package",
            location="tl_timeseries",
            builder=build,
            licence="Apache-2.0",
            pretrained_on="nothing: filters by formula",
            presets=PRESETS,
        )
    ]


@hookimpl
def tl_heads() -> list[HeadSpec]:
    return linear_heads("timeseries")
