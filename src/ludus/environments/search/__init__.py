"""Agents that search: a mailbox and an encyclopedia, both generated, with questions whose answers are exact."""

from ludus.environments.search.email_search import EmailSearch as EmailSearch
from ludus.environments.search.wiki_search import WikiSearch as WikiSearch
