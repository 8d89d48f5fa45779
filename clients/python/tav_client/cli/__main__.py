"""`python -m tav_client.cli`"""

from tav_client.cli import main

main()
