"""The Ray cluster: the connection, its nodes, a job's own record."""
