"""Programs for GPUs and TPUs, compiled ahead of time without one, and what can be read off them.

XLA compiles for a device that is only *described* (`described_devices.py`): what comes back is the optimised program that
such a device would run, with its buffers, custom calls and collectives. It cannot be run here, but it can be read, and that
settles most of what a CPU cannot show: whether attention is fused, what is multiplied in float32, how much memory a step
needs.

No figure of this kind is a time. Where a time is shown it follows from FLOPs, bytes and a data sheet, and is marked *computed*.
"""
