"""Training: the probe on stored features, and fine-tuning through the backbone."""

from tl_core.training.finetune import finetune, predict_rows
from tl_core.training.job import Fitted, Job, fit
from tl_core.training.probe import ProbeFit, fit_probe

__all__ = ["Fitted", "Job", "ProbeFit", "finetune", "fit", "fit_probe", "predict_rows"]
