"""The web page and its API: one process that answers, one that computes (`worker`), and static files.

Needs the extra ``web``; only `app` and what it imports ask for FastAPI.
"""
