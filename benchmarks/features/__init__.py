"""The feature store and the engines measured: speed against the loops that users write, reruns, memory, kills."""
