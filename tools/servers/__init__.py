"""Real servers on free loopback ports, for tests and for trying out: memcached, Redis, Cassandra, HAProxy, rsyslog.

Each is a class whose objects start, stop, kill, pause and resume one server of their own. They end with the process
that started them, whatever becomes of it. `python -m tools.servers` runs some until Ctrl-C.
"""

from tools.servers.cassandra import Cassandra, Ring
from tools.servers.haproxy import HAProxy
from tools.servers.installing import Missing
from tools.servers.memcached import Memcached
from tools.servers.redis import Redis, RedisCluster
from tools.servers.rsyslog import Rsyslog

__all__ = ["Cassandra", "HAProxy", "Memcached", "Missing", "Redis", "RedisCluster", "Ring", "Rsyslog"]
