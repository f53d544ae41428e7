"""What proves who somebody is: device keys, activation codes, API keys, payment codes and PINs. Pure."""
