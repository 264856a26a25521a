"""What every step needs: files, provenance, chunks, interruptions."""
