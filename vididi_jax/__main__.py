"""`python -m vididi_jax`: the command `vididi`, where that is not on the path."""

from vididi_jax.command import main

if __name__ == '__main__':
    main()
