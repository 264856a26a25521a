"""The papers' claims, judged by what was measured."""
