"""Methods compared at equal cost: the same captions and noise, one far teacher."""
