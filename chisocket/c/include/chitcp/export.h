/* What the libraries let programs see. */
#ifndef CHITCP_EXPORT_H
#define CHITCP_EXPORT_H

#define CHITCP_API __attribute__((visibility("default")))

#endif
