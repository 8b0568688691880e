"""A real Supabase data plane that needs no Docker: PostgreSQL, PostgREST and a gateway that fails on command.

with Stack.start() as stack:
    client = await acreate_client(stack.url, stack.service_key)
    stack.gateway.fault("lose", path="rpc/scheduler_apply", times=1)
"""

from tests.stack.errors import StackError
from tests.stack.faults import KINDS, Fault
from tests.stack.gateway import Request
from tests.stack.stack import Stack

__all__ = ["KINDS", "Fault", "Request", "Stack", "StackError"]
