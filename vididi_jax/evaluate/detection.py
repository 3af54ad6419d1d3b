"""`vididi_jax.detection.evaluator` under the name by which it is called from outside."""

from vididi_jax.detection.evaluator import evaluate_csv, main  # noqa: F401

if __name__ == '__main__':
    main()
