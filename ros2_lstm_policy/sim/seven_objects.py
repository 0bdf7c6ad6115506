"""The scene of benchmarks A and B, and of memory tasks: seven objects on a table, and a basket."""

SCENE = 'living_room_scene2'
OBJECTS = ('alphabet_soup_1', 'cream_cheese_1', 'tomato_sauce_1', 'ketchup_1', 'orange_juice_1',
           'milk_1', 'butter_1')
BASKET = 'basket_1'
