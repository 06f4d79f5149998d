// Prints what the module takes the attributes of its input to be: each line a number, each answer the number of a kind.
#include <stdio.h>

#include "../attribute.h"

int main(void) {
	for (CK_ATTRIBUTE_TYPE type; scanf("%lu", &type) == 1;)
		printf("%d\n", (int)attribute_kind(type));
	return 0;
}
