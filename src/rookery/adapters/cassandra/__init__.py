"""The store on a Cassandra ring."""

from rookery.adapters.cassandra.schema import apply as apply_schema
from rookery.adapters.cassandra.schema import check as check_schema
from rookery.adapters.cassandra.schema import found as found_schema
from rookery.adapters.cassandra.session import Access, connect
from rookery.adapters.cassandra.store import CassandraStore

__all__ = ["Access", "CassandraStore", "apply_schema", "check_schema", "connect", "found_schema"]
