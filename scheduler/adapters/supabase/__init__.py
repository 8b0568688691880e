"""The mirror in a Supabase project."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.adapters.supabase.mirror import SupabaseMirror
    from scheduler.settings import Settings


def mirror_of(settings: Settings, timeout_s: float) -> SupabaseMirror | None:
    """The mirror that *settings* name, with *timeout_s* for each request; None: none is configured."""
    if settings.supabase_url is None:
        return None
    # Here, because only those who have a database need the package for it.
    from scheduler.adapters.supabase.mirror import SupabaseMirror

    key = settings.supabase_key.get_secret_value() if settings.supabase_key else ""
    return SupabaseMirror(settings.supabase_url, key, settings.cluster, timeout_s)
