"""What happens around an epoch: Keras callbacks, some of use in a ``fit`` of your own too.

May import everything but the scripts and their config."""

from pipeline.callbacks.epoch_checkpoint import EpochCheckpoint as EpochCheckpoint
from pipeline.callbacks.epoch_start import EpochStart as EpochStart
from pipeline.callbacks.epoch_summary import EpochSummary as EpochSummary
from pipeline.callbacks.evaluation_model import EvaluationModel as EvaluationModel
from pipeline.callbacks.momentum_correction import MomentumCorrection as MomentumCorrection
from pipeline.callbacks.precise_batch_norm import PreciseBatchNorm as PreciseBatchNorm
from pipeline.callbacks.progress_bar import ProgressBar as ProgressBar
from pipeline.callbacks.run_history import RunHistory as RunHistory
from pipeline.callbacks.run_log import RunLog as RunLog
from pipeline.callbacks.tensorboard import TensorBoardCurves as TensorBoardCurves
from pipeline.callbacks.training_monitor import TrainingMonitor as TrainingMonitor
from pipeline.callbacks.validation import Validation as Validation
