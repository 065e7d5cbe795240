from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
version = (root / "hloc_dpqed/__init__.py").read_text().split('__version__ = "')[1].split('"')[0]

setup(
    name="hloc_dpqed",
    version=version,
    description="Small visual-localization maps for hloc: differentiable product quantization",
    long_description=(root / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    project_urls={
        "Paper": "https://arxiv.org/abs/2407.15540",
        "hloc": "https://github.com/cvg/Hierarchical-Localization",
    },
    keywords=["visual localization", "hloc", "colmap", "product quantization"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    packages=find_packages(include=["hloc_dpqed", "hloc_dpqed.*"]),
    package_data={"hloc_dpqed.codecs": ["pretrained/*"]},
    python_requires=">=3.10",
    install_requires=[
        "faiss-cpu>=1.11",  # the first with RaBitQ
        "h5py>=3.15.1",  # the first whose groups hold no time: an export has the same bytes again
        "numpy>=1.25",
        "pycolmap>=3.13",
        "safetensors>=0.4",
        "scipy>=1.10",
        "threadpoolctl>=3.3",  # the first that knows the OpenBLAS of numpy 2
        "torch>=2.1",
        "tqdm>=4.60",
    ],
    extras_require={
        "ilp": ["highspy>=1.7"],
        "plot": ["matplotlib>=3.7"],
        "poselib": ["poselib>=2.0.5"],
        "ray": ["ray>=2.9"],
        "report": ["pillow", "plotly>=5"],
        "dev": [
            # Its wheels are for these only.
            "atheris>=3; sys_platform == 'linux' and platform_machine == 'x86_64' "
            "and python_version >= '3.11' and python_version < '3.14'",
            "build",
            "highspy",
            "hypothesis",
            "ipykernel",
            "kornia",
            "matplotlib>=3.7",
            "mkdocs>=1.6",
            "mkdocstrings-python>=2",
            "mypy",
            "nanopq",
            "nbclient",
            "onnxruntime",
            "pillow",
            "plotly>=5",
            "poselib>=2.0.5",
            "pytest",
            "pytest-cov",
            "pytest-xdist",
            "ruff",
            "scikit-learn",
        ],
    },
    entry_points={"console_scripts": ["hloc-dpqed=hloc_dpqed.cli:main"]},
)
