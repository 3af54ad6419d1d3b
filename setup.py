"""Package metadata; requirements.txt is the one list of what main.py and data_prep need."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# One test builds the package; from Python 3.12 on, environments come without setuptools.
TEST = ['pytest>=8,<10', 'pytest-xdist>=3.8,<4', 'hypothesis>=6.100,<7', 'setuptools>=68,<86']

setup(
    name='vididi_jax',
    version='0.1.0',
    description='Self-supervised video representation learning with temporal derivatives, in JAX',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    author='The vididi_jax developers',
    keywords='self-supervised learning, video, representation learning, JAX, Flax',
    classifiers=[
        'Development Status :: 4 - Beta', 'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux', 'Typing :: Typed',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(11, 15)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence'],
    python_requires='>=3.11,<3.15',  # 3.15 takes away what ml_collections loads config files with
    packages=find_packages(include=['vididi_jax', 'vididi_jax.*']),
    package_dir={f'vididi_jax.{name}': name for name in ('configs', 'data_prep')},  # see their __init__.py there
    package_data={'vididi_jax': ['py.typed'], 'vididi_jax.report': ['page.css', 'page.js'],
                  'vididi_jax.browse': ['page.js']},
    install_requires=(HERE / 'requirements.txt').read_text(encoding='utf-8').split(),
    entry_points={'console_scripts': ['vididi = vididi_jax.command:main']},
    extras_require={
        'test': TEST,
        'dev': [*TEST, 'ruff>=0.15,<0.18', 'import-linter>=2.6,<3'],
        'tensorboard': ['tensorboard>=2.20,<3'],  # the viewer; its files are written without it
        'wandb': ['wandb>=0.20,<1'],
        'notebooks': ['jupytext>=1.17,<2', 'nbclient>=0.10,<0.12', 'nbconvert>=7.16,<8', 'ipykernel>=6.29,<8'],
        'docs': ['sphinx>=9,<10', 'furo>=2025.12,<2027', 'myst-parser>=5,<6', 'sphinx-copybutton>=0.5,<0.6'],
        'beam': ['apache-beam>=2.77,<3'],  # holds protobuf and pyarrow back: an environment of its own, `make beam`
        's3': ['s3fs>=2026.1,<2027'],
        'gs': ['gcsfs>=2026.1,<2027'],
    },
)
