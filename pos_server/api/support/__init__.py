"""What every REST handler uses: dispatch, authentication, bodies, pages, problems."""
