"""An audit shows what a corpus says about AI: `audit` counts, `write_audit` writes the figures as JSON and a page."""

from alignpre_jax.documents.audit.records import Audit, Share, SourceAudit
from alignpre_jax.documents.audit.run import audit, audit_evidence
from alignpre_jax.documents.audit.text import terminal_audit
from alignpre_jax.documents.audit.write import write_audit

__all__ = ["Audit", "Share", "SourceAudit", "audit", "audit_evidence", "terminal_audit", "write_audit"]
