"""What is asked, sent, installed and run on a device, over any transport; nothing that it says is believed."""
