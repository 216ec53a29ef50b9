"""What training and serving come to on machines that nobody here has: a cost model, and simulations that are run on it.

    what a program costs     compiled_costs.py   FLOPs, bytes and kernels of programs that were compiled for an H100 and not run
    what a process costs     measured_costs.py   starting, reading, saving, pushing, answering: small runs on this machine
    what nobody measured     assumptions.py      data sheets and assumptions, each with a range
            |
    how long a step takes    step_time.py
            |
    a fleet that trains      simulated_fleet.py      a queue of adapters (adapter_queue.py)
    replicas that answer     simulated_replicas.py   the texts of many tenants (tenant_routing.py)
            |
    docs/scale.md            scale_page.py           every figure says whether it was measured, compiled, assumed or computed

`one_machine.py` holds the model against what really happened: a run of `train_many` on this machine, predicted from the
constants of other, smaller runs. On accelerators nothing was ever run, and so nothing there is more than computed.

`__main__.py` says how each of them is made anew.
"""
