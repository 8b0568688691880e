"""A training-job scheduler on Ray whose job states are true.

    >>> import scheduler
    >>> job = scheduler.submit(loop="torch_ddp", config={"steps": 100})
    >>> job.wait().status
    'completed'

Everything here talks HTTP to a running scheduler (`SCHEDULER_URL`); Ray is not needed.
"""

__version__ = "0.1.0"
