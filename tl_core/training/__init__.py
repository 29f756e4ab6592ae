"""Training: the probe on stored features, and fine-tuning through the backbone."""

from tl_core.training.finetune import FinetuneFit, finetune, predict_rows
from tl_core.training.probe import ProbeFit, fit_probe

__all__ = ["FinetuneFit", "ProbeFit", "finetune", "fit_probe", "predict_rows"]
