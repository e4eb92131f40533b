"""How a rule sees time steps: all at once (`step_mode="multi"`), or one after the other (`step_mode="single"`).

Both orders have the same interface, so a training method is written only once. State that passes from one step to the next, or
from one walk to another (membranes, sums for time means, statistics, masks), is stored in the order's memory. Its key is the
place of the operation, because a layer may be used in several places. Operations whose inputs are the same at every step run
once, and their results are stored as constants.
"""

from keras_ratesnn.gradients.orders.all_steps import AllSteps
from keras_ratesnn.gradients.orders.one_step import OneStep
from keras_ratesnn.gradients.orders.order import Order

__all__ = ["AllSteps", "OneStep", "Order"]
