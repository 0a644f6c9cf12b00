/* SPDX-License-Identifier: BSD-3-Clause */
/* Classes are known by name: those of TROUPE_ACTOR by themselves. */
#include "unit.h"

#include <troupe.h>

#include "actor/classes.h"
#include "message/type.h"

#define pet_messages(TELL, ASK) TELL(pet, feed, (int32_t grams;))
TROUPE_PROTOCOL(pet)
#define car_messages(TELL, ASK) TELL(car, fuel, (double litres;))
TROUPE_PROTOCOL(car)

struct pet {
    int32_t grams;
};

static int on_feed(troupe_self_t *self, struct pet *p, const pet_feed_t *m)
{
    (void)self;
    p->grams += m->grams;
    return 0;
}

TROUPE_ACTOR(pet, struct pet, .feed = on_feed)
TROUPE_ACTOR_AS(dog, pet, struct pet, .feed = on_feed)

static int receive(troupe_self_t *self, void *state, unsigned index,
                   const void *message)
{
    (void)self, (void)state, (void)index, (void)message;
    return TROUPE_ETYPE;
}

static int find(const char *name, troupe_protocol_t *protocol, size_t bytes,
                const troupe_class_t **class_p)
{
    return tri_classes_find(name, strlen(name), tri_protocol_hash(protocol),
                            bytes, class_p);
}

static void test_by_themselves(void **state)
{
    const troupe_class_t *found = NULL;

    (void)state;
    assert_int_equal(find("pet", &pet_protocol_, sizeof(struct pet), &found),
                     0);
    assert_ptr_equal(found, &pet_class_);
    assert_int_equal(find("dog", &pet_protocol_, sizeof(struct pet), &found),
                     0);
    assert_ptr_equal(found, &dog_class_);
    assert_int_equal(find("cat", &pet_protocol_, sizeof(struct pet), &found),
                     TROUPE_ECLASS);
    assert_int_equal(find("do", &pet_protocol_, sizeof(struct pet), &found),
                     TROUPE_ECLASS);
    assert_int_equal(find("dog", &car_protocol_, sizeof(struct pet), &found),
                     TROUPE_ETYPE);
    assert_int_equal(find("dog", &pet_protocol_, 1, &found), TROUPE_ETYPE);
}

/* As when a library is loaded that has a dog of its own, and unloaded. */
static void test_two_of_a_name(void **state)
{
    static const troupe_class_t other = { "dog", &pet_protocol_,
                                          sizeof(struct pet), receive };
    static troupe_class_entry_t entry = { &other, NULL };
    const troupe_class_t *found = NULL;

    (void)state;
    troupe_class_add_(&entry);
    assert_int_equal(find("dog", &pet_protocol_, sizeof(struct pet), &found),
                     TROUPE_ECLASS);
    troupe_class_remove_(&entry);
    assert_int_equal(find("dog", &pet_protocol_, sizeof(struct pet), &found),
                     0);
    assert_ptr_equal(found, &dog_class_);
}

static void test_register(void **state)
{
    static const troupe_class_t own = { "pet", &pet_protocol_,
                                        sizeof(struct pet), receive };
    static const troupe_class_t odd = { "bad name", &pet_protocol_,
                                        sizeof(struct pet), receive };
    const troupe_class_t *found = NULL;

    (void)state;
    assert_int_equal(troupe_class_register(&own), 0); /* wins */
    assert_int_equal(troupe_class_register(&own), 0);
    assert_int_equal(troupe_class_register(&pet_class_), TROUPE_EEXIST);
    assert_int_equal(troupe_class_register(&odd), TROUPE_EINVAL);
    assert_int_equal(troupe_class_register(NULL), TROUPE_EINVAL);
    assert_int_equal(find("pet", &pet_protocol_, sizeof(struct pet), &found),
                     0);
    assert_ptr_equal(found, &own);
}

static void test_limit(void **state)
{
    static char names[TRI_CLASSES_MAX + 1][8];
    static troupe_class_t classes[TRI_CLASSES_MAX + 1];
    uint32_t n = 0;
    int rc = 0;

    (void)state;
    for (; rc == 0 && n <= TRI_CLASSES_MAX; n++) {
        snprintf(names[n], sizeof(names[n]), "c%u", n);
        classes[n] = (troupe_class_t){ names[n], &pet_protocol_, 1, receive };
        rc = troupe_class_register(&classes[n]);
    }
    assert_int_equal(rc, TROUPE_ELIMIT);
    assert_true(n >= TRI_CLASSES_MAX - 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_themselves),
        cmocka_unit_test(test_two_of_a_name),
        cmocka_unit_test(test_register),
        cmocka_unit_test(test_limit),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
