"""`python -m batsignal`."""

from batsignal.cli import main

if __name__ == "__main__":
    main()
