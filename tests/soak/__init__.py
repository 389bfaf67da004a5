"""Many readers of every kind for a long time, in bad weather: what is wrong, what grows?"""
