"""sats"""
