"""What happens around an epoch: Keras callbacks, each useful alone in a ``fit`` of your own.

May import everything but the scripts and their config."""
