"""Conformance suites for those who write environments and engines, and a deterministic engine for tests."""

from ludus.engine.fake import FakeEngine as FakeEngine
from ludus.engine.fake import fake_renderer as fake_renderer
from ludus.engine.fake import fake_tokenizer as fake_tokenizer
from ludus.testing.audit import Audit as Audit
from ludus.testing.audit import audit_environment as audit_environment
from ludus.testing.audit import audit_environment_async as audit_environment_async
from ludus.testing.engine_suite import check_sampler as check_sampler
from ludus.testing.engine_suite import check_trainer as check_trainer
from ludus.testing.env_suite import check_environment as check_environment
from ludus.testing.env_suite import check_environment_async as check_environment_async
from ludus.testing.finding import Finding as Finding
