"""Judging images: features, distances between sets of images, image scores, and the protocol."""

from coldtune.metrics.cache import Cache, MemoryCache
from coldtune.metrics.descriptors import Distance, ImageScore, PerImageScore
from coldtune.metrics.distances import Estimate, distances, estimates
from coldtune.metrics.extractors import Extractor, build_extractor, extract_features, extract_moments
from coldtune.metrics.fid_infinity import fid_infinity, fid_infinity_estimate
from coldtune.metrics.frechet import frechet_distance, frechet_influences
from coldtune.metrics.image import mse, psnr, rmse, ssim
from coldtune.metrics.intervals import (
    Interval,
    bootstrap_mean,
    jackknife_interval,
    share_interval,
)
from coldtune.metrics.judgement import Judgement, judge, judge_observed
from coldtune.metrics.kid import kid, kid_influences
from coldtune.metrics.mind import mind, mind_influences
from coldtune.metrics.moments import FeatureMoments
from coldtune.metrics.observations import Observations, image_scores
from coldtune.metrics.paired import Comparison, compare, wilcoxon
from coldtune.metrics.precision_recall import precision_recall, precision_recall_influences
from coldtune.metrics.protocol import Protocol, ProtocolConfig, resolve
from coldtune.metrics.reference import Reference, reference_features, reference_statistics
from coldtune.metrics.registry import DISTANCES, IMAGE_SCORES, higher_is_better
from coldtune.metrics.values import Value, check_objective, check_same, difference, same

__all__ = [
    "DISTANCES",
    "IMAGE_SCORES",
    "Cache",
    "Comparison",
    "Distance",
    "Estimate",
    "Extractor",
    "FeatureMoments",
    "ImageScore",
    "Interval",
    "Judgement",
    "MemoryCache",
    "Observations",
    "PerImageScore",
    "Protocol",
    "ProtocolConfig",
    "Reference",
    "Value",
    "bootstrap_mean",
    "build_extractor",
    "check_objective",
    "check_same",
    "compare",
    "difference",
    "distances",
    "estimates",
    "extract_features",
    "extract_moments",
    "fid_infinity",
    "fid_infinity_estimate",
    "frechet_distance",
    "frechet_influences",
    "higher_is_better",
    "image_scores",
    "jackknife_interval",
    "judge",
    "judge_observed",
    "kid",
    "kid_influences",
    "mind",
    "mind_influences",
    "mse",
    "precision_recall",
    "precision_recall_influences",
    "psnr",
    "reference_features",
    "reference_statistics",
    "resolve",
    "rmse",
    "same",
    "share_interval",
    "ssim",
    "wilcoxon",
]
