"""Conformance suites for those who write engines, environments and the like."""
